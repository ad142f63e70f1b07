//! Password files that change under `run`: nobody is locked out, no command fails, and in the end the old password is
//! refused everywhere, in whatever order the pods see the file and whoever dies meanwhile.

#[path = "rotation/killed.rs"]
mod killed;
#[path = "rotation/load.rs"]
mod load;
#[path = "rotation/lone.rs"]
mod lone;
#[path = "rotation/moving.rs"]
mod moving;
#[path = "rotation/tools.rs"]
mod tools;
#[path = "rotation/users.rs"]
mod users;
