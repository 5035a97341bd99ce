BEGIN { x = pid.a; }
