BEGIN { x = trace; }
