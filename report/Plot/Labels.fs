namespace Cmcl

/// A label beside a point of a chart: where its text stands, in pixels from the point, y downwards.
type PlacedLabel =
    {
        Text: string
        /// The lines as they are shown.
        Lines: string list
        /// From the point to the middle of the text.
        Dx: float
        Dy: float
        /// From the point to the text's nearest side.
        Gap: float
    }

/// Labels that keep out of each other's way, for a chart of known size.
[<RequireQualifiedAccess>]
module Labels =
    /// Pixels of a character and of a line at the charts' size of type.
    let private character, private line = 6.7, 15.0

    /// A long label broken where its brackets open and between its settings.
    let lines (label: string) : string list =
        let add (lines: string list) (part: string) =
            match lines with
            | last :: rest when last.Length + part.Length <= 26 -> (last + part) :: rest
            | _ -> part :: lines

        match label.Split('[', 2) with
        | [| family; settings |] when label.Length > 24 ->
            settings.Split(';')
            |> Array.map (fun part -> part + ";")
            |> Array.fold add [ family + "[" ]
            |> List.rev
            |> fun all -> all[.. all.Length - 2] @ [ (List.last all).TrimEnd(';') ]
        | _ -> [ label ]

    /// Left, top, right, bottom.
    type private Box = float * float * float * float

    let private overlap ((l, t, r, b): Box) ((l', t', r', b'): Box) =
        max 0.0 (min r r' - max l l') * max 0.0 (min b b' - max t t')

    /// Eight directions at growing distances.
    let private candidates (width: float) (height: float) =
        [ for distance in [ 9.0; 20.0; 34.0; 52.0; 74.0 ] do
              for dx, dy in [ 1, 0; -1, 0; 0, -1; 0, 1; 1, -1; 1, 1; -1, -1; -1, 1 ] do
                  let side, up = float dx, float dy
                  distance, side * (width / 2.0 + distance * (if dy = 0 then 1.0 else 0.7)), up * (height / 2.0 + distance * 0.8) ]

    /// Places a label for each point, one after the other, each where it covers least of labels and points and of the frame's
    /// outside. `taken` are boxes to keep free.
    let place (width: float) (height: float) (taken: Box list) (points: (string * float * float) list) : PlacedLabel list =
        let marks = [ for _, x, y in points -> (x - 7.0, y - 7.0, x + 7.0, y + 7.0): Box ]

        let one (placed: Box list, labels: PlacedLabel list) (label: string, x: float, y: float) =
            let lines = lines label
            let w = character * float (lines |> List.map _.Length |> List.max)
            let h = line * float lines.Length

            let box dx dy : Box = x + dx - w / 2.0, y + dy - h / 2.0, x + dx + w / 2.0, y + dy + h / 2.0

            let cost (distance: float, dx, dy) =
                let l, t, r, b = box dx dy
                let outside = max 0.0 -l + max 0.0 (r - width) + max 0.0 -t + max 0.0 (b - height)

                let covered = (placed |> List.sumBy (overlap (l, t, r, b))) + 2.0 * (marks |> List.sumBy (overlap (l, t, r, b)))

                covered + 40.0 * outside + distance

            let gap, dx, dy = candidates w h |> List.minBy cost

            let label = { Text = label; Lines = lines; Dx = dx; Dy = dy; Gap = gap }

            box dx dy :: placed, label :: labels

        points |> List.fold one (taken, []) |> snd |> List.rev
