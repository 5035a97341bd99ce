BEGIN { self->a["x"] -= 1; }
