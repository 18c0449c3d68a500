namespace Cmcl

/// Methods without protection: the bounds that others are read against.
[<RequireQualifiedAccess>]
module Plain =
    let private plain name summary curriculum role start : Method =
        { Training.method name summary with
            Curriculum = curriculum
            Role = role }
        |> Method.beginning (fun context memory heads tasks -> Training.plainSession context memory (start context heads) tasks)

    let private asTheyAre _ heads = heads

    /// The encoders as they came: no training.
    let zeroShot: Method =
        { Method.nothing "zero-shot" "no training: the encoders as they came" with
            Role = Role.Floor }

    /// Fine-tuning step after step.
    let vanilla: Method =
        plain
            "vanilla"
            "fine-tuning, step after step, with nothing against forgetting"
            Curriculum.StepByStep
            Role.Baseline
            asTheyAre

    /// Starts from the initial heads at every step: what a step alone can learn.
    let individual: Method =
        plain
            "individual"
            "starts again at every step: what each step alone can learn (read its 'learned' figures)"
            Curriculum.StepByStep
            Role.Restart
            (fun context _ -> context.Initial)

    /// All steps' data at once: the bound for the others.
    let joint: Method = plain "joint" "all steps' data at once: the upper bound" Curriculum.AllAtOnce Role.Ceiling asTheyAre
