BEGIN { trace(alloca(4) << 1); }
