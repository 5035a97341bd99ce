BEGIN { prinf(1); }
