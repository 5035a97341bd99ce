typedef int a_t[string];
