BEGIN { self->a[1] = 2; print(self->a); }
