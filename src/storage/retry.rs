//! When a failed call is tried again: after waits that grow, with jitter, up to a cap. Pure.
