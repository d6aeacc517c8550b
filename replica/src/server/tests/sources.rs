//! The source's side of a catch-up.

use super::rig::{A, B, Rig, VOLUME, replica, write};
use crate::server::source::SOURCES_MAX;
use crate::server::{ConnId, Output};
use holdfast_types::{Lsn, NodeId, SlotNo};
use holdfast_wire::{
    Refusal,
    catchup::{Answer, Question},
};

fn ask(rig: &mut Rig, question: Question) -> Answer {
    rig.server.question(ConnId(9), question, &mut rig.host, rig.now_ms);
    let mut said = rig.says();
    match said.pop() {
        Some(Output::Answer(ConnId(9), answer)) if said.is_empty() => answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_source_answers_from_its_log_and_from_its_slots() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    engine.commit(&mut rig, vec![write(0, 1, 1), write(40, 2, 2)]);
    let _ = rig.says();
    rig.server.open_source(ConnId(9), VOLUME, replica(VOLUME), B, &rig.host).unwrap();
    let (above, settle) = (Lsn::ZERO, Lsn::new(2));
    let Answer::Opened(opened) = ask(&mut rig, Question::Open { above, settle }) else { panic!() };
    assert_eq!((opened.applied, opened.commit), (Lsn::ZERO, Lsn::new(2)));
    let answer = ask(&mut rig, Question::Records { from: Lsn::new(1) });
    let Answer::Records { records, commit, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((records.len(), commit), (2, Lsn::new(2)));
    rig.host.drain();
    rig.settle();
    let Answer::Opened(opened) = ask(&mut rig, Question::Open { above, settle }) else { panic!() };
    assert_eq!(opened.applied, Lsn::new(2));
    let answer = ask(&mut rig, Question::Slots { from: SlotNo::new(0), above });
    let Answer::Slots { slots, next: None, applied } = answer else { panic!("{answer:?}") };
    let slots: Vec<_> = slots.iter().map(|copy| (copy.slot.get(), copy.lsn.get())).collect();
    assert_eq!((slots.as_slice(), applied), ([(0, 1), (2, 2)].as_slice(), Lsn::new(2)));
    let failed = ask(&mut rig, Question::Open { above, settle: Lsn::new(9) });
    assert!(matches!(failed, Answer::Failed(_)), "{failed:?}");
}

#[test]
fn so_many_at_a_time_and_one_of_a_node() {
    let mut rig = Rig::new();
    let open = |rig: &mut Rig, conn: u64, node: u128| {
        let node = NodeId::from_u128(node);
        rig.server.open_source(ConnId(conn), VOLUME, replica(VOLUME), node, &rig.host)
    };
    for conn in 0..SOURCES_MAX as u64 {
        open(&mut rig, conn, u128::from(conn)).unwrap();
    }
    assert_eq!(open(&mut rig, 100, 100), Err(Refusal::Full));
    open(&mut rig, 101, 3).unwrap();
    let out = rig.outputs();
    assert!(matches!(out.as_slice(), [Output::Close(ConnId(3), _)]), "{out:?}");
    rig.close(4);
    open(&mut rig, 102, 100).unwrap();
}

#[test]
fn nobody_hears_an_answer_after_the_connection_is_gone() {
    let mut rig = Rig::new();
    let mut engine = rig.attach(1, 5, A);
    engine.commit(&mut rig, vec![write(0, 1, 1)]);
    let _ = rig.says();
    rig.server.open_source(ConnId(9), VOLUME, replica(VOLUME), B, &rig.host).unwrap();
    let question = Question::Records { from: Lsn::new(1) };
    rig.server.question(ConnId(9), question, &mut rig.host, rig.now_ms);
    rig.close(9);
    assert!(rig.says().is_empty());
    assert!(rig.others.is_empty());
}
