BEGIN { if ("a") x = 1; }
