BEGIN { x = pid->a; }
