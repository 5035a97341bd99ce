BEGIN { trace(this->a[1]); }
