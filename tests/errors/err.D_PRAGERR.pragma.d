#pragma error stop
BEGIN { }
