//! The metadata group as its users see it: one catalogue, the shipping
//! [`Catalogue::apply`], one command after the other. How a Raft group comes to
//! agree is tested where it lives; here it is a service that may be slow, may
//! be away, and never answers a question twice in different ways.

use holdfast_meta::{Catalogue, Command, Outcome, Rejected};
use std::{collections::BTreeMap, rc::Rc};

/// Names a question, so that its repetition gets the first answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(pub u64);

/// What a command led to.
pub type Answer = Result<Outcome, Rejected>;

/// The service.
#[derive(Debug, Default)]
pub struct Metadata {
    catalogue: Rc<Catalogue>,
    answers: BTreeMap<QuestionId, Answer>,
    away: bool,
}

impl Metadata {
    /// Carries a command out, unless it was before; `None` while the group is away.
    pub fn ask(&mut self, id: QuestionId, command: &Command) -> Option<Answer> {
        if self.away {
            return None;
        }
        if let Some(answer) = self.answers.get(&id) {
            return Some(answer.clone());
        }
        let answer = Rc::make_mut(&mut self.catalogue).apply(command);
        self.answers.insert(id, answer.clone());
        Some(answer)
    }

    /// The catalogue now: what the group has agreed on.
    #[must_use]
    pub fn catalogue(&self) -> &Rc<Catalogue> {
        &self.catalogue
    }

    /// Whether the group has lost its quorum.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.away
    }

    /// The group loses or regains its quorum.
    pub fn set_away(&mut self, away: bool) {
        self.away = away;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::ClusterId;

    #[test]
    fn a_repeated_question_gets_the_first_answer() {
        let mut metadata = Metadata::default();
        let init = |id| Command::InitCluster { cluster: ClusterId::from_u128(id) };
        metadata.set_away(true);
        assert_eq!(metadata.ask(QuestionId(1), &init(1)), None);
        metadata.set_away(false);
        assert_eq!(metadata.ask(QuestionId(2), &init(2)).map(|a| a.is_ok()), Some(true));
        let refused = metadata.ask(QuestionId(1), &init(1));
        assert!(matches!(refused, Some(Err(_))));
        assert_eq!(metadata.ask(QuestionId(1), &init(2)), refused);
    }
}
