namespace Cmcl

open System.IO

/// The tables of a verification: `verify.csv`, every condition at every place, and `curves.csv`, the points behind the figures.
[<RequireQualifiedAccess>]
module VerificationFiles =
    /// Makes sure that a verification can go to the folder; see `ResultsFolder.claim`.
    let prepare (force: bool) (folder: string) : Result<unit, Fault list> =
        ResultsFolder.claim ([ "verify.csv"; "curves.csv"; "verify.html" ], []) force folder

    let private optional = Option.map Csv.number >> Option.defaultValue ""

    let private findingsHeader = [ "run"; "condition"; "where"; "value"; "bound"; "tolerance"; "exact_to"; "must"; "holds" ]

    /// Writes `verify.csv` into a folder.
    let writeFindings (folder: string) (findings: Finding list) : Result<unit, Fault list> =
        let fields (f: Finding) =
            let c = f.Condition
            let limits = [ Csv.number c.Value; Csv.number c.Bound; Csv.number c.Tolerance; optional f.ExactTo ]
            [ f.Run; c.Name; c.Where ] @ limits @ [ (if c.Must then "1" else "0"); f.Verdict ]

        Results.writeWhole (Path.Combine(folder, "verify.csv")) (Csv.write findingsHeader fields findings)

    let private maybe name (text: string) = if text = "" then None else Some(Csv.real name text)

    /// Reads `verify.csv` of a folder. Faults: `Missing`, or `Unreadable` with the line.
    let readFindings (folder: string) : Result<Finding list, Fault list> =
        Csv.read (Path.Combine(folder, "verify.csv")) findingsHeader (fun f ->
            { Run = f[0]
              Condition =
                { Name = f[1]
                  Where = f[2]
                  Value = Csv.real "value" f[3]
                  Bound = Csv.real "bound" f[4]
                  Tolerance = Csv.real "tolerance" f[5]
                  Must = f[7] = "1" }
              ExactTo = maybe "exact_to" f[6] })

    let private pointsHeader = [ "figure"; "run"; "series"; "where"; "x"; "y"; "cell" ]

    /// Writes `curves.csv` into a folder.
    let writePoints (folder: string) (points: Point list) : Result<unit, Fault list> =
        let fields (p: Point) = [ p.Figure; p.Run; p.Series; p.Where; Csv.number p.X; Csv.number p.Y; optional p.Cell ]
        Results.writeWhole (Path.Combine(folder, "curves.csv")) (Csv.write pointsHeader fields points)

    /// Reads `curves.csv` of a folder; faults as `readFindings`.
    let readPoints (folder: string) : Result<Point list, Fault list> =
        Csv.read (Path.Combine(folder, "curves.csv")) pointsHeader (fun f ->
            { Figure = f[0]
              Run = f[1]
              Series = f[2]
              Where = f[3]
              X = Csv.real "x" f[4]
              Y = Csv.real "y" f[5]
              Cell = maybe "cell" f[6] })

    /// Writes both tables.
    let write (folder: string) (v: Verification) : Result<unit, Fault list> =
        [ writeFindings folder v.Findings; writePoints folder v.Points ] |> Check.all |> Result.map ignore
