BEGIN { this->p = (int *)alloca(4); this->q = (char *)alloca(4); trace(this->p == this->q); }
