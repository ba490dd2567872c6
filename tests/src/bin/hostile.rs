//! A peer that wants nothing good, as a process of its own: what it costs is not counted with what it does to others.
//!
//! `hostile ATTACK TICKET` dials whoever has the ticket; `hostile ATTACK FILE`, with an attack on viewers, publishes and
//! writes a ticket to the file. It says `under way` when it begins, how each of its connections was `closed`, and `done`
//! when it has done its worst, and stays until it is killed.

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(attack), Some(target)) = (arguments.next(), arguments.next()) else {
        panic!("hostile ATTACK TICKET-OR-FILE");
    };
    iroh_live_tests::hostile::run(&attack, &target);
}
