namespace Cmcl.Encoders

/// What libraries say of files that they cannot read.
[<RequireQualifiedAccess>]
module internal Reason =
    /// The first line of a message, to stand within a sentence.
    let ofException (e: exn) : string =
        let line = e.Message.Trim().Split('\n')[0]
        line.Trim().TrimEnd '.'
