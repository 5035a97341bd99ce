BEGIN { printf("%A", 1); }
