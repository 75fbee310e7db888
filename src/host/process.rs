//! Children: the one home of `Command`.
