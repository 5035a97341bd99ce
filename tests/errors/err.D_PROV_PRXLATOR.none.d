provider x { probe a(int b) : (string b); };
