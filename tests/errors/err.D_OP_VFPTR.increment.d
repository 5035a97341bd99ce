BEGIN { this->p = alloca(4); this->p++; }
