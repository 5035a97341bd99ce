BEGIN { @ = llquantize(1, 10, 0, 40, 10); }
