//! A live database makes room: what refuses it beforehand, and the swap by renaming.
