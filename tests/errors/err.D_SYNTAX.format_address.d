BEGIN { printf("%a", arg0); }
