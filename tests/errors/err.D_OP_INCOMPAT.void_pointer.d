BEGIN { this->p = alloca(4) + 1; }
