"""A trace as a debuggee: the Debug Adapter Protocol, so that an IDE steps backwards without an extension of ours."""
