#pragma D attributes Stable x
