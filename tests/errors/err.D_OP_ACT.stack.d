BEGIN { this->z = stack(); }
