//! A PostgreSQL server of a drill's own: made by initdb, reached by its socket alone, and gone with the drill.
