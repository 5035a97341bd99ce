BEGIN { trace = 1; }
