namespace Cmcl

open System.Runtime.ExceptionServices

/// Functions that a caller passed in, called by one thread at a time. What one of them raises is no fault of the cell that happens to run: from
/// then on nothing is told and everything is to be left, and at the end `Rethrow` raises it.
type internal Callbacks<'event>(tell: 'event -> unit, leave: unit -> bool) =
    let gate = obj ()
    let mutable raised: ExceptionDispatchInfo option = None

    let call (otherwise: 'a) (act: unit -> 'a) : 'a =
        if raised.IsSome then
            otherwise
        else
            try
                act ()
            with e ->
                raised <- Some(ExceptionDispatchInfo.Capture e)
                otherwise

    member _.Tell(event: 'event) : unit = lock gate (fun () -> call () (fun () -> tell event))
    member _.Leave() : bool = call true leave
    member _.Rethrow() : unit = raised |> Option.iter _.Throw()
