// swift-tools-version:5.7
import PackageDescription

let package = Package(
    name: "Stateroom",
    platforms: [.iOS(.v13), .macOS(.v11)],
    products: [.library(name: "Stateroom", targets: ["Stateroom"])],
    targets: [
        // Built by build-xcframework.sh.
        .binaryTarget(name: "CStateroom", path: "CStateroom.xcframework"),
        .target(name: "Stateroom", dependencies: ["CStateroom"]),
        .testTarget(name: "StateroomTests", dependencies: ["Stateroom"]),
    ]
)
