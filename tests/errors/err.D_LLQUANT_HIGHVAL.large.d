BEGIN { @ = llquantize(1, 10, 0, 100000, 10); }
