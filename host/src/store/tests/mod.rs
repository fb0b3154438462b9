//! The store as a whole against a plain model: at random, after power loss, with a failing disk, with damaged files, and under threads.

mod checks;
mod damage;
mod driver;
mod model;
mod operated;
mod parked;
mod power;
mod random;
mod seed;
mod threads;
