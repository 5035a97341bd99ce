struct s { int a; }; struct s x; BEGIN { this->p = &x; }
