BEGIN { (1)++; }
