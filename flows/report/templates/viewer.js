const MODES = ["shaded", "clay", "normals", "wireframe"];

/** Where all cameras of a page stand: degrees, azimuth 0 in front and growing counter-clockwise from above; zoom 1 shows all. */
class Orbit {
  constructor() { this.azimuth = 35; this.elevation = 15; this.zoom = 1; this.watchers = []; }

  move(change) {
    Object.assign(this, change);
    this.azimuth = ((this.azimuth % 360) + 360) % 360;
    this.elevation = Math.min(85, Math.max(-85, this.elevation));
    this.zoom = Math.min(6, Math.max(0.5, this.zoom));
    this.watchers.forEach((watcher) => watcher(this));
  }

  /** From the model to the camera, in glTF's frame (+Y up, +Z front). */
  get back() {
    const a = this.azimuth * Math.PI / 180, e = this.elevation * Math.PI / 180;
    return new THREE.Vector3(Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e));
  }
}

/** Light a scene: a sky that fades downward, a key light over the viewer's left shoulder and a weak one from behind the right.
 * Returns what sets their contrast: 1 is light and shade, 0 even light from everywhere. */
function lit(scene, camera) {
  const grey = (value) => new THREE.Color(value, value, value);
  const even = new THREE.AmbientLight(0xffffff), sky = new THREE.HemisphereLight(grey(0.56), grey(0.34));
  const key = new THREE.DirectionalLight(), fill = new THREE.DirectionalLight();
  key.position.set(-0.5, 0.6, 0.75);
  fill.position.set(0.9, 0.2, -0.3);
  camera.add(key, key.target, fill, fill.target);
  scene.add(even, sky, camera);
  return (contrast) => {
    for (const [light, strength] of [[sky, 1], [key, 0.62], [fill, 0.16]]) light.intensity = strength * contrast;
    even.intensity = 1 - contrast;
  };
}

/** What the parts of a model are drawn with in each mode. */
function materials({ map, color, normalMap, normalScale, vertexColors }) {
  const bumps = { normalMap, normalScale, side: THREE.DoubleSide };
  const matt = (more) => new THREE.MeshPhongMaterial({ specular: 0, ...bumps, ...more });
  return {
    shaded: matt({ map, color, vertexColors }),
    clay: matt({ color: new THREE.Color(0.62, 0.6, 0.57) }),
    normals: new THREE.MeshNormalMaterial(bumps),
    wireframe: matt({ color: new THREE.Color(0.8, 0.79, 0.77), polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 }),
  };
}

/** One model on one canvas; draws when something changed. */
class Viewer {
  /** Throws an Error that says why the model cannot be shown. */
  static async open(canvas, bytes, orbit) {
    const loader = new THREE.GLTFLoader();
    loader.register((parser) => {
      // The loader of its own choice fetches, which the page's policy forbids even for what lies inside the page.
      parser.textureLoader = new THREE.TextureLoader(parser.options.manager);
      return { name: "pictures" };
    });
    const gltf = await new Promise((done, failed) => loader.parse(bytes.buffer, "", done, failed));
    return new Viewer(canvas, gltf.scene, orbit);
  }

  constructor(canvas, model, orbit) {
    this.canvas = canvas; this.orbit = orbit; this.frame = 0; this.parts = []; this.lines = [];
    model.traverse((part) => { if (part.isMesh) this.parts.push(part); });
    if (!this.parts.length) throw new Error("it holds no triangles");
    for (const part of this.parts) {
      part.looks = materials(part.material);
      const color = new THREE.Color(0.13, 0.2, 0.3).convertSRGBToLinear();
      const lines = new THREE.Mesh(part.geometry, new THREE.MeshBasicMaterial({ color, wireframe: true }));
      part.add(lines);
      this.lines.push(lines);
    }
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.renderer.outputEncoding = THREE.sRGBEncoding;
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(20, 1, 1, 2);
    this.setContrast = lit(this.scene, this.camera);
    this.scene.add(model);
    this.sphere = boundingSphere(model, this.parts);
    orbit.watchers.push(() => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
    canvas.addEventListener("webglcontextrestored", () => this.draw());
    this.show(MODES[0]);
  }

  show(mode) {
    this.parts.forEach((part) => { part.material = part.looks[mode]; });
    this.lines.forEach((lines) => { lines.visible = mode === "wireframe"; });
    this.setContrast(mode === "shaded" ? 0.6 : 1);
    this.draw();
  }

  draw() { if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.render(); }); }

  render() {
    const { canvas, camera, sphere } = this, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
    this.renderer.setSize(width, height, false);
    // The sphere around the model fills the narrower side.
    camera.aspect = width / height;
    const half = Math.atan(Math.min(1, camera.aspect) * Math.tan(camera.fov * Math.PI / 360));
    const distance = sphere.radius * 1.12 / Math.sin(half) / this.orbit.zoom;
    camera.near = Math.max(distance - sphere.radius * 1.5, distance / 100);
    camera.far = distance + sphere.radius * 1.5;
    camera.position.copy(sphere.center).addScaledVector(this.orbit.back, distance);
    camera.lookAt(sphere.center);
    camera.updateProjectionMatrix();
    this.renderer.render(this.scene, camera);
  }
}

/** The sphere around the middle of a model's box. */
function boundingSphere(model, parts) {
  const sphere = new THREE.Sphere(), corner = new THREE.Vector3();
  new THREE.Box3().setFromObject(model).getCenter(sphere.center);
  for (const part of parts) {
    const places = part.geometry.attributes.position;
    for (let k = 0; k < places.count; k++) {
      corner.fromBufferAttribute(places, k).applyMatrix4(part.matrixWorld);
      sphere.radius = Math.max(sphere.radius, corner.distanceTo(sphere.center));
    }
  }
  return sphere;
}
