/* a /* b */ */ BEGIN { }
