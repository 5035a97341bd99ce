int m`x;
