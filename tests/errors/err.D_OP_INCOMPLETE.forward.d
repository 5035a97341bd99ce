BEGIN { this->p = (struct s *)alloca(4); trace(this->p->a); }
