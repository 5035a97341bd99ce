short long x; BEGIN { }
