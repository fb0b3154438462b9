//! The store as a whole against a plain model: at random, after power loss, with a failing disk, with damaged files, and under threads.

mod damage;
mod disk;
mod driver;
mod power;
mod random;
mod threads;
