BEGIN { @ = quantize(1, 2); }
