BEGIN { x = (int *)arg0; }
