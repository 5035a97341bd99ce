BEGIN { printf("%d", alloca(4)); }
