inline int x[5] = 1; BEGIN {}
