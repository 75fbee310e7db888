//! pg_dump's own archive (`-Fc`), read as it passes: what it holds, and whether it is whole.
