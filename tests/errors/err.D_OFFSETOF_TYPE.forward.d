BEGIN { x = offsetof(struct a, b); }
